"""NVIDIA's driver by ctypes, and its management library by NVIDIA's own binding."""
