"""From files to packed batches: corpora -> dedupe -> keyed -> stored -> split -> compose -> templates -> spans -> encode -> packing; prepare.py runs all up to the packing."""
