"""The one search language for nodes, used by the API, the command line and the terminal app.

``gpu:4090|a100 vram>=24 price<2 rel>=0.98 isolation>=container region:eu online sort:cost``

``fields`` is the table of what can be asked, ``language`` reads a query into ``terms``, which are
data, and ``match`` looks them up in the ``facts`` of one node. A market with many nodes looks the
same terms up in columns.
"""

from computeswarm.core.query.completion import completions
from computeswarm.core.query.display import shown
from computeswarm.core.query.editing import with_word
from computeswarm.core.query.facts import UNKNOWN_VALUE, VENDORS, Facts, facts, facts_of
from computeswarm.core.query.fields import DEFAULT_SORT, FIELDS, FLAGS, SORTABLE
from computeswarm.core.query.help import RULES, describe, help_text
from computeswarm.core.query.kinds import Field, Kind, Look
from computeswarm.core.query.language import MAX_LENGTH, parse
from computeswarm.core.query.match import SORT_KEYS
from computeswarm.core.query.plain import PLAIN, plain_words
from computeswarm.core.query.terms import Query, Term
from computeswarm.core.query.versions import version_number, version_text
from computeswarm.core.text import squeeze

__all__ = [
    "DEFAULT_SORT",
    "FIELDS",
    "FLAGS",
    "MAX_LENGTH",
    "PLAIN",
    "RULES",
    "SORTABLE",
    "SORT_KEYS",
    "UNKNOWN_VALUE",
    "VENDORS",
    "Facts",
    "Field",
    "Kind",
    "Look",
    "Query",
    "Term",
    "completions",
    "describe",
    "facts",
    "facts_of",
    "help_text",
    "parse",
    "plain_words",
    "shown",
    "squeeze",
    "version_number",
    "version_text",
    "with_word",
]
