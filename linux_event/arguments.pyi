# Everything in this module is for other extensions: arguments.pxd has it.
