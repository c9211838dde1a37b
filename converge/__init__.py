"""Histories of recorded events through the real code into every store, against an independent model applied in order.

Pure: recordings, histories, the model, shrinking and reports. At the edge: what feeds a store and reads it back.
"""
