"""Bridges to the public evaluation toolkits: their command lines ask a model of this package, in their own words."""
