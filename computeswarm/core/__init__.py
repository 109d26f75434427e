"""Ground floor: models, money, text, errors and signatures. No I/O, no other room of the house."""
