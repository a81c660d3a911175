"""From files to packed batches: corpora -> dedupe -> split -> compose -> templates -> spans -> encode -> packing; prepare.py runs all up to the packing."""
