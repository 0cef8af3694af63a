"""What draws after a picture: ControlNet, Control-LoRA, T2I-Adapter, xinsir's union of several kinds of map, and
IP-Adapter."""
