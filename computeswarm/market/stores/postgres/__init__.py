"""The PostgreSQL store. Only imported where a market is told to use one: asyncpg is an extra."""
