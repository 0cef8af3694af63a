"""The networks of Stable Diffusion: UNet, autoencoders, text encoder. Their parts have diffusers' names."""
