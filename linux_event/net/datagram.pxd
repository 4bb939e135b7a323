# datagram.pxd: empty, because nothing in C is used by other modules.
