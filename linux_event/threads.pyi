# Nothing here is for Python: the module has C functions only.
