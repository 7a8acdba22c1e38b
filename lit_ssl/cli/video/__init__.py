"""Words of ``lit-ssl`` that read, make and score videos."""
