"""What the buyer says to markets and sellers, over HTTP and a WebSocket."""
