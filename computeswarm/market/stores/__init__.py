"""Where the market's durable truth lies: one protocol, SQLite and PostgreSQL behind it."""
