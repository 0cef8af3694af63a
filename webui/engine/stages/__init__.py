"""What an order has besides passes."""
