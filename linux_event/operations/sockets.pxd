# sockets.pxd: nothing of these operations is for other modules.
