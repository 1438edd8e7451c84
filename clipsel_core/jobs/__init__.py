"""Jobs: our own commands as processes that outlive whoever started them. Light: needs no torch."""
