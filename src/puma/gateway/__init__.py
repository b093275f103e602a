"""An OpenAI-compatible endpoint in front of a cluster, on the client's own machine: it sees prompts and answers in the
clear, as the client does. Knows HTTP and a cluster's Python surface; must not know parties, shares or links.

`app` has the routes, `endpoints` a file for each of them, `service` what they share: the queue of jobs and its thread
(`worker`), and what each party was sent for each request (`watch`).
"""
