"""The replicated state: one module per structure. Pure; the machine tells them what was agreed on."""
