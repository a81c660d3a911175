"""From files to packed batches: corpora -> templates -> spans -> packing; prepare.py runs the whole way."""
