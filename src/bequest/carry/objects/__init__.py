"""How objects are reduced and rebuilt that plain pickle refuses, one module for each family of types."""
