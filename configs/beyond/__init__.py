"""What the paper does not try: pretrained victims, stronger defences, JPEG, more images."""
