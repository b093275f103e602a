"""Keys and the pseudorandom streams made from them. This room knows no share, no party and no network:
it turns a secret that two parties hold into numbers that only those two can compute."""
