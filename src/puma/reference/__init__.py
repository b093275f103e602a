"""What a secure answer is compared with: the plain model, and sessions with nobody, in float and in fixed point."""
