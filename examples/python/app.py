import os
import sys

print("arguments:", sys.argv[1:])
for name in ("TRUSTED_ENV", "UNTRUSTED_ENV"):
    print(f"{name}: {os.environ.get(name)}")
