"""What a gateway bears: jobs and who asks them (`jobs`, `keys`), who is next (`waiting`), threads with a session each
(`worker`), and numbers for operators (`metrics`). None of it knows what is asked.
"""
