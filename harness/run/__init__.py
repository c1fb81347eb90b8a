"""Taking numbers: artifacts loaded in processes of their own, which take turns."""
