# paths.pxd: nothing of these requests is for other modules.
