"""Networks of the paper: ResNets, VGGs and segmentation networks, with attention and regularizers as options."""
