"""What a trained model says of patients without labels, here or at another site."""
