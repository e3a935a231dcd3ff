"""Options of every command: one frozen dataclass each, the single source of name and default."""
