"""Services that have an SQL database: their memory is a table in it, committed together with what handlers do."""

from orchestrator.connectors.sql.inbox import SqlInbox, schema

__all__ = ["SqlInbox", "schema"]
