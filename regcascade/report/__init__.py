"""What a person looks at: pictures of registrations, tables of measures, loggers."""
