"""Networks of the paper: ResNets and VGGs, with attention and regularizers as options."""
