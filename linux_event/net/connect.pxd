# connect.pxd: nothing of this is for other modules.
