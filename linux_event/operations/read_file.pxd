# read_file.pxd: nothing of this operation is for other modules.
