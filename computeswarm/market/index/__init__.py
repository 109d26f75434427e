"""Searches over the table: a query's terms on columns, orders, pages with cursors, and facets."""

from computeswarm.market.index.masks import matching
from computeswarm.market.index.pages import MAX_PAGE, Page
from computeswarm.market.index.search import Search

__all__ = ["MAX_PAGE", "Page", "Search", "matching"]
