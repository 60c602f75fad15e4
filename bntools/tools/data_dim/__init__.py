"""The intrinsic dimension of a point cloud."""
