# chain.pxd: nothing of a chain is for other modules.
