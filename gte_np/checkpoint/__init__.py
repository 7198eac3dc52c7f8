"""Files of a published checkpoint -> configuration and weights. Nothing that is read here is executed."""
