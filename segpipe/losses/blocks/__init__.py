"""What losses are made of: the terms, each a module, and what all of them check and prepare alike. No plug-ins are in here."""
