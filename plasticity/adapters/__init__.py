"""Bridges to other frameworks. Each is imported by who uses it; nothing here comes with `import plasticity`."""
