cline auth -p openai -k "YOUR_API_TOKEN" -b "BASE_URL" -m "MODEL_ID"
