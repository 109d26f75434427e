"""x402's extensions that we speak: what a 402 and a receipt say besides."""
