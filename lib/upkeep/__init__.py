"""What keeps the project whole: checks, pages, costs, bundles, benchmarks."""
