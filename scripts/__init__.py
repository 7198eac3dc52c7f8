"""What people and CI run beside the tests: parity, golden arrays, published weights."""
