"""Result tables: collect score files, compute statistics, render one Table object as md, csv, tex, json."""
