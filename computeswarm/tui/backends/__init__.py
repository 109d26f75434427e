"""Where the app gets its data; ``live`` speaks to the real façades."""
