"""Files on disk: shares of models, uploads on their way, preprocessing that serves once, prepared requests.

Must not know links, requests or protocols.
"""
