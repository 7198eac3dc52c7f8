"""Adapters that let other libraries embed texts by gte_np: one module for each library.

A module imports its library, so import the module that you use, such as `gte_np.integrations.langchain`. Each has an
extra of its own: `pip install 'gte_np[langchain]'`. INTEGRATIONS.md has an example of each.
"""
