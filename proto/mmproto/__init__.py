"""What crosses a wire, shared by sensor, pipeline and router; it depends on none of them."""
