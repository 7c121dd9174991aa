//! Events and choices: the seam through which a dirql run is watched and steered
