# listener.pxd: nothing of this module is for other ones.
